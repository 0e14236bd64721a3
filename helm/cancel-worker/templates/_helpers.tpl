{{- define "cancel-worker.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* 52 characters: room for the longest suffix within the 63 of a DNS label. */}}
{{- define "cancel-worker.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := include "cancel-worker.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* What selectors use: never changes over the life of a release. */}}
{{- define "cancel-worker.selectorLabels" -}}
app.kubernetes.io/name: {{ include "cancel-worker.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: worker
{{- end }}

{{- define "cancel-worker.labels" -}}
{{ include "cancel-worker.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: cancel-worker
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "cancel-worker.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "cancel-worker.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "cancel-worker.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* The most that can run at once outside a roll-out. */}}
{{- define "cancel-worker.maxReplicas" -}}
{{- if .Values.keda.enabled }}{{ int .Values.keda.maxReplicaCount }}{{ else }}{{ int .Values.replicaCount }}{{ end }}
{{- end }}

{{/* Shutdown grace, rounded up, and 15 s for what comes after it: closing sessions and links, and the runtime. */}}
{{- define "cancel-worker.leastTerminationGrace" -}}
{{- add (.Values.config.shutdown.grace | float64 | ceil | int) 15 }}
{{- end }}

{{- define "cancel-worker.terminationGrace" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds }}
{{- include "cancel-worker.leastTerminationGrace" . }}
{{- else }}
{{- int .Values.terminationGracePeriodSeconds }}
{{- end }}
{{- end }}

{{- define "cancel-worker.configFolder" -}}/etc/cancel-worker-chart{{- end }}
{{- define "cancel-worker.secretsFolder" -}}/run/secrets/cancel-worker{{- end }}

{{/* The broker's TLS files that are mounted, by configuration key. */}}
{{- define "cancel-worker.brokerTlsFiles" -}}
{{- $tls := .Values.secrets.broker.tls }}
{{- $files := dict }}
{{- if $tls.existingSecret }}
{{- range $name, $key := dict "ca_file" $tls.caKey "cert_file" $tls.certKey "key_file" $tls.keyKey }}
{{- if $key }}{{ $_ := set $files $name $key }}{{ end }}
{{- end }}
{{- end }}
{{- toJson $files }}
{{- end }}

{{/*
One value as TOML, on one line. Scalars are written as JSON, whose strings, numbers and booleans are TOML as well.
(Helm's toToml would write every whole number from a values file as a float, which the worker refuses.)
*/}}
{{- define "cancel-worker.toml" -}}
{{- if kindIs "map" . }}
{{- $pairs := list }}
{{- range $key, $value := . }}
{{- $pairs = append $pairs (printf "%s = %s" (toJson $key) (include "cancel-worker.toml" $value)) }}
{{- end }}
{{- printf "{%s}" (join ", " $pairs) }}
{{- else if kindIs "slice" . }}
{{- $items := list }}
{{- range . }}
{{- $items = append $items (include "cancel-worker.toml" .) }}
{{- end }}
{{- printf "[%s]" (join ", " $items) }}
{{- else }}
{{- toJson . }}
{{- end }}
{{- end }}

{{/* The configuration file: a table per section of `config`, the paths of the mounted secrets, the port. */}}
{{- define "cancel-worker.config" -}}
{{- $folder := include "cancel-worker.secretsFolder" . }}
{{- $config := deepCopy .Values.config }}
{{- $broker := merge (dict "url_file" (printf "%s/broker-url" $folder)) (default dict $config.broker) }}
{{- range $name, $key := include "cancel-worker.brokerTlsFiles" . | fromJson }}
{{- $_ := set $broker $name (printf "%s/broker-%s.pem" $folder (trimSuffix "_file" $name)) }}
{{- end }}
{{- $_ := set $config "broker" $broker }}
{{- $_ := set $config "venue" (merge (dict
      "api_key_file" (printf "%s/venue-api-key" $folder)
      "api_secret_file" (printf "%s/venue-api-secret" $folder)) $config.venue) }}
{{- $_ := set $config "ops" (dict "port" (int .Values.ops.port)) }}
{{- $tables := list }}
{{- range $section, $keys := $config }}
{{- $lines := list }}
{{- range $key, $value := $keys }}
{{- if not (kindIs "invalid" $value) }}
{{- $lines = append $lines (printf "%s = %s" $key (include "cancel-worker.toml" $value)) }}
{{- end }}
{{- end }}
{{- if $lines }}
{{- $tables = append $tables (printf "[%s]\n%s" $section (join "\n" $lines)) }}
{{- end }}
{{- end }}
{{- join "\n\n" $tables }}
{{- end }}
