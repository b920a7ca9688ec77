{{/* The environment of a container, in the order in which a later one replaces an earlier: endpoints.env (which Compose
reads too), what the chart derives, backends outside, `config` of the values, what the workload is, its own `env`. Of
shared ones a workload gets those that it reads: a change then rolls exactly the pods that it concerns. */}}
{{- define "flts.environment" -}}
{{- $reads := index (.root.Files.Get "config/readers.json" | fromJson) .name | default list -}}
{{- $shared := dict -}}
{{- range $line := splitList "\n" (.root.Files.Get "config/endpoints.env") -}}
{{- if and (contains "=" $line) (not (hasPrefix "#" $line)) -}}
{{- $pair := splitn "=" 2 $line -}}
{{- $_ := set $shared $pair._0 (trim $pair._1) -}}
{{- end -}}
{{- end -}}
{{- $shared = merge (include "flts.derived" .root | fromYaml) $shared -}}
{{- range $name, $value := .root.Values.config }}{{ $_ := set $shared $name (include "flts.text" $value) }}{{ end -}}
{{- $all := dict -}}
{{- range $name, $value := $shared -}}
{{- if has $name $reads }}{{ $_ := set $all $name $value }}{{ end -}}
{{- end -}}
{{- if eq .name "preprocess-job" }}{{ $_ := set $all "DATASET_NAME" .root.Values.datasetName }}{{ end -}}
{{- range $own := list (.spec.env | default dict) (.chosen.env | default dict) -}}
{{- range $name, $value := $own }}{{ $_ := set $all $name (include "flts.text" $value) }}{{ end -}}
{{- end -}}
{{- range $name, $value := $all }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- range $name, $key := include "flts.secretNames" . | fromYaml }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $.root.Values.secrets.existingSecret | default "flts-secrets" }}
      key: {{ $key }}
      {{- if eq $key "INFERENCE_API_KEY" }}
      optional: true
      {{- end }}
{{- end }}
{{- end }}

{{/* What follows from other values. */}}
{{- define "flts.derived" -}}
{{- $all := dict "EXPECTED_MODEL_TYPES" (include "flts.trained" .) -}}
{{- $mlflow := include "flts.outside" (dict "root" . "key" "mlflow") -}}
{{- if $mlflow -}}
{{- $_ := set $all "MLFLOW_TRACKING_URI" $mlflow -}}
{{- $_ := set $all "MLFLOW_UI_URL" $mlflow -}}
{{- else if .Values.nodePorts.mlflow -}}
{{- $_ := set $all "MLFLOW_UI_URL" (printf "http://127.0.0.1:%d" (int .Values.nodePorts.mlflow)) -}}
{{- end -}}
{{- $names := dict "kafka" "KAFKA_BOOTSTRAP_SERVERS" "minio" "MLFLOW_S3_ENDPOINT_URL" "fastapi" "GATEWAY_URL" -}}
{{- range $key, $name := $names -}}
{{- with include "flts.outside" (dict "root" $ "key" $key) }}{{ $_ := set $all $name . }}{{ end -}}
{{- end -}}
{{- with include "flts.scalingNote" . }}{{ $_ := set $all "TRIAL_NOTE" . }}{{ end -}}
{{- toYaml $all -}}
{{- end }}

{{/* What is to be said where the autoscaler sees nothing; empty where it does, or is off. */}}
{{- define "flts.scalingNote" -}}
{{- with .Values.services.inference -}}
{{- if and .enabled .autoscaling.enabled (not ($.Capabilities.APIVersions.Has "metrics.k8s.io/v1beta1")) -}}
The autoscaler of inference stands still at {{ int .autoscaling.minReplicas }} replicas: this cluster has no metrics-server. Install it (minikube: `minikube addons enable metrics-server`; elsewhere its components.yaml, on kind and Docker Desktop with --kubelet-insecure-tls), then `helm upgrade` as before.
{{- end -}}
{{- end -}}
{{- end }}

{{/* The secrets that a workload reads: variable -> key. One that is never made is named only where there may be one. */}}
{{- define "flts.secretNames" -}}
{{- $all := dict -}}
{{- $given := .root.Values.secrets -}}
{{- if kindIs "map" .spec.secrets }}{{ $all = .spec.secrets }}
{{- else }}{{ range $name := .spec.secrets }}
{{- if or (ne $name "INFERENCE_API_KEY") $given.INFERENCE_API_KEY $given.existingSecret }}{{ $_ := set $all $name $name }}{{ end }}
{{- end }}{{ end -}}
{{- toYaml $all -}}
{{- end }}

{{/* Every secret's value, as JSON: given, or the one that the cluster has, or random. Made once in a rendering, since
each call of a random function gives another value, and kept in the context, not in the values: Helm stores these. */}}
{{- define "flts.secrets" -}}
{{- if not (hasKey . "FltsSecrets") -}}
{{- $there := (lookup "v1" "Secret" .Release.Namespace "flts-secrets").data | default dict -}}
{{- $all := dict -}}
{{- range $name := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" "POSTGRES_PASSWORD" "GATEWAY_API_KEY" "GRAFANA_ADMIN_PASSWORD" "INFERENCE_API_KEY" -}}
{{- $value := index $.Values.secrets $name -}}
{{- if not $value -}}
{{- if eq $name "INFERENCE_API_KEY" }}{{ $value = "" }}
{{- else if hasKey $there $name }}{{ $value = index $there $name | b64dec }}
{{- else if eq $name "AWS_ACCESS_KEY_ID" }}{{ $value = printf "flts-%s" (randNumeric 8) }}
{{- else }}{{ $value = randAlphaNum 48 }}{{ end -}}
{{- end -}}
{{- if $value }}{{ $_ := set $all $name $value }}{{ end -}}
{{- end -}}
{{- $_ := set . "FltsSecrets" $all -}}
{{- end -}}
{{- toJson .FltsSecrets -}}
{{- end }}
