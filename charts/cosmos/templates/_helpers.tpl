{{- /* Names, labels and images that several templates share. */}}

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

{{- define "cosmos.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "cosmos.operator" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* Labels that select the operator's pod; they must never change, since a Deployment's selector cannot. */}}
{{- define "cosmos.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "cosmos.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: cosmos
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
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
