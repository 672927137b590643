{{- /* Annotations of an object that exists for `helm test` only: (dict "weight" 0). It is deleted before the next test. */}}
{{- define "cosmos.testAnnotations" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation{{ if not .stays }},hook-succeeded{{ end }}
{{- end }}

{{- /* A pod of the operator's image that runs one test:
(dict "root" . "name" "access" "weight" 1 "serviceAccount" ... "configMap" ... "arguments" (list ...)).
It stays until the next test, so that `helm test --logs` and kubectl find its log. */}}
{{- define "cosmos.testPod" -}}
apiVersion: v1
kind: Pod
metadata:
  name: {{ include "cosmos.fullname" .root }}-test-{{ .name }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "cosmos.labels" .root | nindent 4 }}
    app.kubernetes.io/component: test
  annotations: {{- include "cosmos.testAnnotations" (dict "weight" .weight "stays" true) | nindent 4 }}
spec:
  restartPolicy: Never
  serviceAccountName: {{ .serviceAccount | quote }}
  automountServiceAccountToken: true
  enableServiceLinks: false
  {{- with .root.Values.operator }}
  securityContext: {{- toYaml .podSecurityContext | nindent 4 }}
  {{- with .nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: test
      image: {{ include "cosmos.image" (list .root "operator") | quote }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy | quote }}
      command: [python, -m, cosmos_operator.installation_check, {{ .name }}]
      args: {{- toYaml .arguments | nindent 8 }}
      {{- with .root.Values.operator.extraEnv }}
      env: {{- toYaml . | nindent 8 }}
      {{- end }}
      resources: {{- toYaml .root.Values.operator.resources | nindent 8 }}
      securityContext: {{- toYaml .root.Values.operator.securityContext | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/cosmos, readOnly: true}
        - {name: tmp, mountPath: /tmp}
  volumes:
    - name: config
      configMap: {name: {{ .configMap | quote }}}
    - name: tmp
      emptyDir: {sizeLimit: 64Mi}
{{- end }}
