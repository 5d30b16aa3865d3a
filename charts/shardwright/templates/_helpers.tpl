{{- define "shardwright.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "shardwright.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains (include "shardwright.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "shardwright.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* Name of what belongs to no namespace: releases of one name in two namespaces must not share it. */}}
{{- define "shardwright.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "shardwright.fullname" .) }}
{{- end }}

{{- define "shardwright.selectorLabels" -}}
app.kubernetes.io/name: {{ include "shardwright.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "shardwright.labels" -}}
{{- with .Values.commonLabels }}
{{- toYaml . }}
{{ end -}}
{{- include "shardwright.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /*
The operator makes a service account `shardwright-<gateway>` for each DiscordGateway. Its own must never be one of those:
the shard pods of a DiscordGateway of the fitting name would run with the operator's rights.
*/}}
{{- define "shardwright.serviceAccountName" -}}
{{- $given := .Values.serviceAccount.name }}
{{- if hasPrefix "shardwright-" $given }}
{{- fail (printf "serviceAccount.name %q begins with shardwright-, which is kept for the service accounts of shard pods" $given) }}
{{- end }}
{{- $own := include "shardwright.fullname" . }}
{{- if hasPrefix "shardwright-" $own }}
{{- $own = printf "operator-%s" $own }}
{{- end }}
{{- default (ternary $own "default" .Values.serviceAccount.create) $given }}
{{- end }}

{{- define "shardwright.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "shardwright.shardImage" -}}
{{- default (printf "shardwright/shard:%s" .Chart.AppVersion) .Values.shard.image }}
{{- end }}
