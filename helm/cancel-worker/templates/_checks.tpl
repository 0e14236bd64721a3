{{/* Combinations that can't work: all of them are told at once. What one value alone can break is the schema's. */}}
{{- define "cancel-worker.checks" -}}
{{- $wrong := list }}

{{- if not .Values.secrets.broker.existingSecret }}
{{- $wrong = append $wrong "secrets.broker.existingSecret is required: the Secret that holds the broker's URL" }}
{{- end }}
{{- if not .Values.secrets.venue.existingSecret }}
{{- $wrong = append $wrong "secrets.venue.existingSecret is required: the Secret that holds the venue's API key and secret" }}
{{- end }}

{{- range $name := list "broker.url" "broker.url_file" "venue.api_key" "venue.api_key_file" "venue.api_secret" "venue.api_secret_file" }}
{{- $path := splitList "." $name }}
{{- if hasKey (default dict (get $.Values.config (first $path))) (last $path) }}
{{- $wrong = append $wrong (printf "config.%s is not set here: a ConfigMap is no place for secrets, the chart points to the files of secrets.%s" $name (first $path)) }}
{{- end }}
{{- end }}

{{- $tls := .Values.secrets.broker.tls }}
{{- if ne (empty $tls.certKey) (empty $tls.keyKey) }}
{{- $wrong = append $wrong "secrets.broker.tls: certKey and keyKey are set together or not at all" }}
{{- end }}
{{- if and $tls.existingSecret (not $tls.caKey) (not $tls.certKey) }}
{{- $wrong = append $wrong "secrets.broker.tls.existingSecret is set, but no key of it" }}
{{- end }}

{{- $least := include "cancel-worker.leastTerminationGrace" . | int }}
{{- $given := include "cancel-worker.terminationGrace" . | int }}
{{- if lt $given $least }}
{{- $wrong = append $wrong (printf "terminationGracePeriodSeconds is %d, less than config.shutdown.grace + 15 = %d: the kubelet would kill the worker while it finishes what is in flight" $given $least) }}
{{- end }}

{{- $sessions := mul (add 1 (include "cancel-worker.maxReplicas" . | int)) (int .Values.config.venue.sessions) }}
{{- if gt (int $sessions) (int .Values.venueSessionLimit) }}
{{- $wrong = append $wrong (printf "%d sessions could be open during a roll-out (pods + 1, times config.venue.sessions), more than venueSessionLimit %d" (int $sessions) (int .Values.venueSessionLimit)) }}
{{- end }}

{{- if .Values.keda.enabled }}
{{- if gt (int .Values.keda.minReplicaCount) (int .Values.keda.maxReplicaCount) }}
{{- $wrong = append $wrong "keda.minReplicaCount is more than keda.maxReplicaCount" }}
{{- end }}
{{- if gt (int .Values.keda.fallbackReplicas) (int .Values.keda.maxReplicaCount) }}
{{- $wrong = append $wrong "keda.fallbackReplicas is more than keda.maxReplicaCount" }}
{{- end }}
{{- if not .Values.keda.existingSecret }}
{{- $wrong = append $wrong "keda.existingSecret is required when keda.enabled: the Secret that holds the management API's URL, user and password" }}
{{- end }}
{{- end }}

{{- if and .Values.prometheusRule.enabled (not .Values.serviceMonitor.enabled) }}
{{- $wrong = append $wrong "prometheusRule.enabled needs serviceMonitor.enabled: the rules look for the series that it scrapes" }}
{{- end }}

{{- $names := list }}
{{- range .Values.extraEnv }}
{{- if hasPrefix "CANCEL_WORKER" .name }}
{{- $wrong = append $wrong (printf "extraEnv %s: configuration belongs in config, secrets in secrets" .name) }}
{{- end }}
{{- if has .name $names }}
{{- $wrong = append $wrong (printf "extraEnv %s stands twice" .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- end }}

{{- if $wrong }}
{{- fail (printf "\ncancel-worker: these values can't work:\n  - %s\n" (join "\n  - " $wrong)) }}
{{- end }}
{{- end }}
