{{/* The files that Compose mounts from deploy/, as the data of ConfigMaps; .helm/files holds copies of them, since a chart
reads nothing outside its folder (`make generate` writes them, `make lint` compares). */}}
{{- define "flts.files" -}}
{{- if eq .name "s3-files" }}{{ include "flts.plainFiles" (dict "root" .root "pattern" "files/s3/*") }}
{{- else if eq .name "grafana-datasources" }}{{ include "flts.plainFiles" (dict "root" .root "pattern" "files/grafana/provisioning/datasources/*") }}
{{- else if eq .name "grafana-providers" }}{{ include "flts.plainFiles" (dict "root" .root "pattern" "files/grafana/provisioning/dashboards/*") }}
{{- else if eq .name "grafana-dashboards" }}{{ include "flts.plainFiles" (dict "root" .root "pattern" "files/grafana/dashboards/*") }}
{{- else if eq .name "prometheus-files" }}{{ include "flts.prometheusFiles" .root }}
{{- else }}{{ fail (printf "no files are called %s" .name) }}{{ end -}}
{{- end }}

{{- define "flts.plainFiles" -}}
{{- $files := dict -}}
{{- range $path, $content := .root.Files.Glob .pattern }}{{ $_ := set $files (base $path) (toString $content) }}{{ end -}}
{{- toYaml $files -}}
{{- end }}

{{- define "flts.prometheusFiles" -}}
{{- $files := dict -}}
{{- $_ := set $files "prometheus.yml" (include "flts.scrapes" .) -}}
{{- $_ := set $files "rules.yml" (include "flts.rules" .) -}}
{{- $_ := set $files "rules-kubernetes.yml" (include "flts.kubernetesRules" .) -}}
{{- toYaml $files -}}
{{- end }}

{{/* Compose's configuration, less the services that are not installed; a replica of one behind a NodePort is found by
the Service that has an address for each. */}}
{{- define "flts.scrapes" -}}
{{- $installed := (include "flts.installed" . | fromJson).names -}}
{{- $specs := .Files.Get "config/workloads.yaml" | fromYaml -}}
{{- $config := .Files.Get "files/prometheus/prometheus.yml" | fromYaml -}}
{{- $jobs := list -}}
{{- range $job := $config.scrape_configs -}}
{{- if not (hasKey $specs $job.job_name) }}{{ fail (printf "prometheus.yml has a job %s and the chart no workload" $job.job_name) }}{{ end -}}
{{- if has $job.job_name $installed -}}
{{- $spec := index $specs $job.job_name -}}
{{- if and $spec.metrics $spec.nodePorts -}}
{{- range $sd := $job.dns_sd_configs }}{{ $_ := set $sd "names" (list (printf "%s-replicas" $job.job_name)) }}{{ end -}}
{{- end -}}
{{- $jobs = append $jobs $job -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config "scrape_configs" $jobs -}}
{{- $_ := set $config "rule_files" (append $config.rule_files "rules-kubernetes.yml") -}}
{{- toYaml $config -}}
{{- end }}

{{/* Compose's rules; nobody is told that a service is missing which was not asked for, and commands are kubectl's. */}}
{{- define "flts.rules" -}}
{{- $rules := .Files.Get "files/prometheus/rules.yml" -}}
{{- $installed := (include "flts.installed" . | fromJson).names -}}
{{- range $name, $spec := .Files.Get "config/workloads.yaml" | fromYaml -}}
{{- if and $spec.metrics (not (has $name $installed)) -}}
{{- $rules = replace (printf "or absent(up{job=\"%s\"})" $name) "" $rules -}}
{{- end -}}
{{- end -}}
{{- $rules = replace "docker compose logs " "kubectl logs deployment/" $rules -}}
{{- regexReplaceAll "docker compose up --scale ([^=`]+)=(\\d+)" $rules "kubectl scale deployment/${1} --replicas=${2}" -}}
{{- end }}

{{- define "flts.kubernetesRules" -}}
groups:
  - name: flts-kubernetes
    rules:
      {{- with .Values.services.inference }}
      {{- if and .enabled .autoscaling.enabled }}
      - alert: FltsInferenceAtMaxReplicas
        expr: count(up{job="inference"}) >= {{ int .autoscaling.maxReplicas }}
        for: 10m
        labels: {severity: warning}
        annotations:
          summary: inference has all the replicas that it may have
          description: The autoscaler has held services.inference.autoscaling.maxReplicas ({{ int .autoscaling.maxReplicas }}) for 10 minutes.
          action: >-
            `kubectl describe hpa inference` shows the load that it sees. Raise maxReplicas if the node has room; else requests
            wait longer, and beyond MAX_WAITING_REQUESTS are answered 503 with Retry-After.
      {{- end }}
      {{- end }}
{{- end }}
