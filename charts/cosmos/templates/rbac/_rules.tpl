{{- /* Rights of the operator in the namespaces of jobs. None of them is on Secrets, and none must be. */}}
{{- define "cosmos.namespacedRules" -}}
# jobs: delete is for spec.runPolicy.ttlSecondsAfterFinished; finalizers lets objects name a job as their owner
- apiGroups: [cosmos.dev]
  resources: [posttrainingjobs, inferencejobs]
  verbs: [get, list, watch, delete]
- apiGroups: [cosmos.dev]
  resources: [posttrainingjobs/status, inferencejobs/status]
  verbs: [patch]
- apiGroups: [cosmos.dev]
  resources: [posttrainingjobs/finalizers, inferencejobs/finalizers]
  verbs: [update]
# workloads are created and deleted; patch annotates that of a training with what a preemption would cost, and adds and
# removes owners of a Job or ConfigMap that jobs share; what a job owns is deleted a while after its end
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete, patch]
- apiGroups: [kubeflow.org]
  resources: [pytorchjobs]
  verbs: [get, list, watch, create, delete, patch]
- apiGroups: [trainer.kubeflow.org]
  resources: [trainjobs]
  verbs: [get, list, watch, create, delete, patch]
- apiGroups: [trainer.kubeflow.org]
  resources: [trainjobs/status]
  verbs: [patch]
- apiGroups: [trainer.kubeflow.org]
  resources: [trainingruntimes]
  verbs: [create]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, delete, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create]
# read for the reason why something waits or has failed, and for its progress; delete ends a pod of a stage whose worker
# has failed and that other containers keep, so that its Job tries again
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create]
- apiGroups: [kueue.x-k8s.io]
  resources: [localqueues, workloads]
  verbs: [list, watch]
{{- end }}

{{- /* Rights in the whole cluster: to read the GPUs of nodes, how a storage class binds claims, and which other
installations watch which namespaces. */}}
{{- define "cosmos.clusterRules" -}}
- apiGroups: [""]
  resources: [nodes]
  verbs: [list]
- apiGroups: [storage.k8s.io]
  resources: [storageclasses]
  verbs: [get]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [list]
{{- end }}

{{- /* Metadata and binding of a role: (dict "root" . "kind" "Role" "name" ... "namespace" ...). */}}
{{- define "cosmos.roleHeader" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}
metadata:
  name: {{ .name | quote }}
  {{- with .namespace }}
  namespace: {{ . | quote }}
  {{- end }}
  labels: {{- include "cosmos.labels" .root | nindent 4 }}
{{- end }}

{{- define "cosmos.roleBinding" -}}
{{ include "cosmos.roleHeader" (merge (dict "kind" (printf "%sBinding" .kind)) .) }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .name | quote }}
subjects:
  - kind: ServiceAccount
    name: {{ include "cosmos.serviceAccount" .root | quote }}
    namespace: {{ .root.Release.Namespace | quote }}
{{- end }}
