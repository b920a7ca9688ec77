{{/* Names, labels, and what the values say about a workload. Where a helper takes a dict, it has: root, name, spec (its
entry in config/workloads.yaml or job.yaml) and chosen (its entry in values). */}}

{{/* Labels by which pods are found; they never change, since a selector cannot. */}}
{{- define "flts.selector" -}}
app.kubernetes.io/name: flts
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "flts.labels" -}}
{{ include "flts.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: flts
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{/* A value as an environment variable's text: YAML's numbers are floats here, and 1e+06 is no whole number to a reader. */}}
{{- define "flts.text" -}}
{{- if kindIs "float64" . -}}
{{- if eq . (floor .) }}{{ printf "%.0f" . }}{{ else }}{{ toJson . }}{{ end -}}
{{- else }}{{ . }}{{ end -}}
{{- end }}

{{/* The address of a backend outside, by its key in externalBackend; empty where it is in the cluster. */}}
{{- define "flts.outside" -}}
{{- with .root.Values.externalBackend -}}
{{- if .enabled -}}
{{- if eq $.key "kafka" }}{{ .kafka.bootstrapServers }}
{{- else if eq $.key "mlflow" }}{{ .mlflow.trackingUri }}
{{- else if eq $.key "minio" }}{{ .minio.endpoint }}
{{- else if eq $.key "fastapi" }}{{ .fastapi.gatewayUrl }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* What values say about a workload, with `on`: whether it is installed. */}}
{{- define "flts.chosen" -}}
{{- $part := .root.Values -}}
{{- if .spec.part }}{{ $part = index .root.Values .spec.part }}{{ end -}}
{{- $chosen := deepCopy (index $part .spec.values) -}}
{{- $on := $chosen.enabled -}}
{{- if .spec.outside -}}
{{- if include "flts.outside" (dict "root" .root "key" .spec.outside) }}{{ $on = false }}{{ end -}}
{{- end -}}
{{- if eq .name "preprocess-job" }}{{ $on = and $on (ne .root.Values.datasetName "") }}{{ end -}}
{{- toYaml (set $chosen "on" $on) -}}
{{- end }}

{{/* The names of all workloads that are installed, as a list in JSON. */}}
{{- define "flts.installed" -}}
{{- $names := list -}}
{{- $root := . -}}
{{- range $name, $spec := .Files.Get "config/workloads.yaml" | fromYaml -}}
{{- if (include "flts.chosen" (dict "root" $root "name" $name "spec" $spec) | fromYaml).on }}{{ $names = append $names $name }}{{ end -}}
{{- end -}}
{{- toJson (dict "names" $names) -}}
{{- end }}

{{/* Model types whose trainers are installed: the ones that eval waits for. */}}
{{- define "flts.trained" -}}
{{- $types := list -}}
{{- $specs := .Files.Get "config/workloads.yaml" | fromYaml -}}
{{- range $name := (include "flts.installed" . | fromJson).names -}}
{{- with (index $specs $name).trains }}{{ $types = concat $types (splitList "," .) }}{{ end -}}
{{- end -}}
{{- sortAlpha $types | join "," -}}
{{- end }}

{{- define "flts.image" -}}
{{- if .chosen.image }}{{ .chosen.image }}
{{- else }}{{ .root.Values.images.prefix }}{{ .spec.image }}:{{ .root.Values.images.tag | default .root.Chart.AppVersion }}{{ end -}}
{{- end }}

{{/* A name of the whole cluster, so it says whose it is. */}}
{{- define "flts.priorityClass" -}}
{{ .root.Release.Namespace }}-{{ .root.Release.Name }}-{{ .name }}
{{- end }}
