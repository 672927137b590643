{{- /* Rights of the operator in the namespaces of jobs. None of them is on Secrets, and none must be. */}}
{{- define "cosmos.namespacedRules" -}}
# jobs: delete is for spec.runPolicy.ttlSecondsAfterFinished; finalizers lets objects name a job as their owner
- apiGroups: [cosmos.dev]
  resources: [posttrainingjobs, inferencejobs]
  verbs: [get, list, watch, delete]
- apiGroups: [cosmos.dev]
  resources: [posttrainingjobs/status, inferencejobs/status]
  verbs: [get, patch]
- apiGroups: [cosmos.dev]
  resources: [posttrainingjobs/finalizers, inferencejobs/finalizers]
  verbs: [update]
# workloads are created and deleted, never changed; patch adds a further owner to a Job or ConfigMap that jobs share,
# for which OwnerReferencesPermissionEnforcement (OpenShift) demands delete as well: no ConfigMap is ever deleted
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete, patch]
- apiGroups: [kubeflow.org]
  resources: [pytorchjobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [trainer.kubeflow.org]
  resources: [trainjobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, delete, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create]
# read for the reason why something waits or has failed, and for its progress
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [get, list, create, patch]
- apiGroups: [kueue.x-k8s.io]
  resources: [localqueues, workloads]
  verbs: [get, list, watch]
{{- end }}

{{- /* Rights in the whole cluster: to read the GPUs of nodes, and how a storage class binds claims. */}}
{{- define "cosmos.clusterRules" -}}
- apiGroups: [""]
  resources: [nodes]
  verbs: [get, list]
- apiGroups: [storage.k8s.io]
  resources: [storageclasses]
  verbs: [get, list]
{{- end }}

{{- /* Metadata and binding of a role: (dict "root" . "kind" "Role" "name" ... "namespace" ...). */}}
{{- define "cosmos.roleHeader" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels: {{- include "cosmos.labels" .root | nindent 4 }}
{{- end }}

{{- define "cosmos.roleBinding" -}}
{{ include "cosmos.roleHeader" (merge (dict "kind" (printf "%sBinding" .kind)) .) }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .name }}
subjects:
  - kind: ServiceAccount
    name: {{ include "cosmos.serviceAccount" .root }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}
