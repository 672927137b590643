{{- /* Names, labels and images that several templates share.

Every text is written with `quote`: names such as 2024 or 1e3 are numbers for YAML. A value that was not there in an
earlier version of the chart is read with `dig` and its default: `helm upgrade --reuse-values` knows the earlier ones
only. */}}

{{- define "cosmos.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* Name of the operator's Deployment and of most objects that belong to it. */}}
{{- define "cosmos.operator" -}}
{{ include "cosmos.fullname" . }}-operator
{{- end }}

{{- /* Name of the Service of the metrics; unlike others it must begin with a letter before Kubernetes 1.34. */}}
{{- define "cosmos.metricsService" -}}
{{- $name := include "cosmos.operator" . }}
{{- if regexMatch "^[0-9]" $name }}{{ $name = printf "cosmos-%s" (include "cosmos.fullname" .) }}{{ end }}
{{- $name }}-metrics
{{- end }}

{{- /* Name of the viewer's Service; see cosmos.metricsService. */}}
{{- define "cosmos.viewerService" -}}
{{- $name := include "cosmos.fullname" . }}
{{- if regexMatch "^[0-9]" $name }}{{ $name = printf "cosmos-%s" $name }}{{ end }}
{{- $name }}-viewer
{{- end }}

{{- /* Labels that select the viewer's pods. */}}
{{- define "cosmos.viewerSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: viewer
{{- end }}

{{- /* Number of the operator's pods, as text. */}}
{{- define "cosmos.replicas" -}}
{{- dig "replicas" 2 .Values.operator | int }}
{{- end }}

{{- define "cosmos.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "cosmos.operator" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* Labels that select the operator's pod; they must never change, since a Deployment's selector cannot. */}}
{{- define "cosmos.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "cosmos.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: cosmos
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end }}

{{- /* Reference of an image: (list root "operator"); empty if it has no repository. */}}
{{- define "cosmos.image" -}}
{{- $root := index . 0 }}
{{- $image := index $root.Values.image (index . 1) }}
{{- if $image.repository }}
{{- $registry := default $image.registry $root.Values.global.imageRegistry | trimSuffix "/" }}
{{- if $registry }}{{ $registry }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default $root.Chart.AppVersion $image.tag }}{{ end }}
{{- end }}
{{- end }}

{{- /* All images, one a line. */}}
{{- define "cosmos.images" -}}
{{- $images := list }}
{{- range $name := list "operator" "worker" "workerCpu" }}
{{- $images = append $images (include "cosmos.image" (list $ $name)) }}
{{- end }}
{{- join "\n" (compact $images | uniq) }}
{{- end }}

{{- /* Namespaces whose jobs are carried out, as a JSON list; empty = all. */}}
{{- define "cosmos.watched" -}}
{{- if and (eq .Values.rbac.scope "Namespaced") (not .Values.watchNamespaces) }}
{{- list .Release.Namespace | toJson }}
{{- else }}
{{- .Values.watchNamespaces | uniq | toJson }}
{{- end }}
{{- end }}

{{- /* Namespaces of the objects for jobs: those whose jobs are carried out, or that of the release if these are all. */}}
{{- define "cosmos.jobNamespaces" -}}
{{- default (list .Release.Namespace) (include "cosmos.watched" . | fromJsonArray) | toJson }}
{{- end }}
