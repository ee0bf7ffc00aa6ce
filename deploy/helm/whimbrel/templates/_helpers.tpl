{{- define "whimbrel.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "whimbrel.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "whimbrel.labels" -}}
{{ include "whimbrel.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* The file of a setting: JWT_SECRET is /etc/whimbrel/files/jwt-secret. */ -}}
{{- define "whimbrel.file" -}}
{{ . | lower | replace "_" "-" }}
{{- end }}

{{- define "whimbrel.scheme" -}}
{{ ternary "HTTPS" "HTTP" (ne .Values.tls.secret "") }}
{{- end }}

{{- /* Delay, drain, 3 s for the last bytes, 10 s for requests under way, and 2 s to spare: docs/limits.md. */ -}}
{{- define "whimbrel.grace" -}}
{{ add .Values.drain.delaySeconds .Values.drain.seconds 15 }}
{{- end }}

{{- /* What can't work is refused before anything is installed. */ -}}
{{- define "whimbrel.validate" -}}
{{- range $name, $from := .Values.files }}{{ if hasKey $.Values.settings $name }}{{ fail (printf "%s stands under `settings` and under `files`: one of them" $name) }}{{ end }}{{ end -}}
{{- $closed := false -}}
{{- range list "JWT_SECRET" "JWT_PUBLIC_KEY" "JWKS_URL" "AUTHORIZE_URL" "API_KEYS" -}}
{{- if or (hasKey $.Values.settings .) (hasKey $.Values.files .) }}{{ $closed = true }}{{ end -}}
{{- end -}}
{{- if not (or $closed .Values.openAccess) }}{{ fail "access would be open to whoever reaches a node: set JWT_SECRET, JWT_PUBLIC_KEY or API_KEYS under `files`, or JWKS_URL or AUTHORIZE_URL under `settings`; or openAccess=true" }}{{ end -}}
{{- if and $closed .Values.openAccess }}{{ fail "openAccess=true, and a key or secret is set, which closes access: one of them" }}{{ end -}}
{{- $store := false -}}
{{- range list "REDIS_URL" "REGIONS" -}}
{{- if or (hasKey $.Values.settings .) (hasKey $.Values.files .) }}{{ $store = true }}{{ end -}}
{{- end -}}
{{- if and (not $store) (or .Values.autoscaling.enabled (gt (int .Values.replicas) 1)) }}{{ fail "several nodes need a Redis: REDIS_URL under `files` or `settings`; or replicas=1 for a trial in memory" }}{{ end -}}
{{- if and .Values.links.enabled (not (hasKey .Values.files "LINK_SECRET")) }}{{ fail "links.enabled: LINK_SECRET is needed under `files`" }}{{ end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}{{ fail "autoscaling.minReplicas is above maxReplicas" }}{{ end -}}
{{- end }}
