{{- define "flts.notes" -}}
{{- $ports := .Values.nodePorts -}}
{{- $gateway := include "flts.outside" (dict "root" . "key" "fastapi") | default (printf "http://localhost:%d" (int ($ports.gateway | default 8000))) -}}
{{- $inference := printf "http://localhost:%d" (int ($ports.inference | default 8080)) -}}
{{- $secret := .Values.secrets.existingSecret | default "flts-secrets" -}}
{{- $installed := (include "flts.installed" . | fromJson).names -}}
{{- $job := .Values.services.preprocessJob.enabled | and (ne .Values.datasetName "") -}}
{{- $name := .Values.datasetName | default "NAME" -}}
FLTS {{ .Chart.AppVersion }} is installed as {{ .Release.Name }} in the namespace {{ .Release.Namespace }}. The next three commands:

{{- if $job }}

  1. Wait until the run on {{ $name }} is started{{ if eq $name "sample" }} (the data set is generated){{ end }}:

     kubectl --namespace {{ .Release.Namespace }} wait --for=condition=Complete --timeout=15m job/{{ include "flts.currentJob" . }}

  2. Send a small series through the whole pipeline, and have it deleted again:

     helm test {{ .Release.Name }} --namespace {{ .Release.Namespace }} --timeout 25m

  3. Ask for a forecast of {{ $name }}, once its model is promoted:

     curl -s "{{ $gateway }}/datasets/{{ $name }}/tail?rows=50" | curl -s -H "content-type: application/json" -d @- {{ $inference }}/predict
{{- else }}

  1. Wait until the pipeline is up:

     kubectl --namespace {{ .Release.Namespace }} rollout status deployment/{{ if has "fastapi-app" $installed }}fastapi-app{{ else }}inference{{ end }} --timeout=15m

  2. Upload a data set and follow its run:

     FLTS_API_KEY="$(kubectl --namespace {{ .Release.Namespace }} get secret {{ $secret }} --output jsonpath='{.data.GATEWAY_API_KEY}' | base64 --decode)" flts --url {{ $gateway }} upload NAME train.csv --follow

  3. Ask for a forecast of it:

     curl -s "{{ $gateway }}/datasets/NAME/tail?rows=50" | curl -s -H "content-type: application/json" -d @- {{ $inference }}/predict
{{- end }}
{{- if or (and (has "fastapi-app" $installed) (not $ports.gateway)) (and (has "inference" $installed) (not $ports.inference)) }}

Before that, in terminals of their own, since there are no ports on the node for them:
{{- if and (has "fastapi-app" $installed) (not $ports.gateway) }}

     kubectl --namespace {{ .Release.Namespace }} port-forward service/fastapi-app 8000:8000
{{- end }}
{{- if and (has "inference" $installed) (not $ports.inference) }}

     kubectl --namespace {{ .Release.Namespace }} port-forward service/inference 8080:8000
{{- end }}
{{- end }}
{{- if .Values.secrets.INFERENCE_API_KEY }}

Forecasts ask for the header x-api-key: INFERENCE_API_KEY in the Secret {{ $secret }}.
{{- end }}

For people (where the node is another machine, as with minikube, its address instead of localhost):
{{- if has "fastapi-app" $installed }}
{{- with $ports.gateway }}
  gateway     http://localhost:{{ int . }}        key: GATEWAY_API_KEY in the Secret {{ $secret }}
{{- end }}
{{- end }}
{{- with $ports.inference }}
  forecasts   http://localhost:{{ int . }}/predict
{{- end }}
{{- if has "mlflow" $installed }}{{ with $ports.mlflow }}
  MLflow      http://localhost:{{ int . }}
{{- end }}{{ end }}
{{- if has "minio" $installed }}{{ with $ports.minio }}
  S3          http://localhost:{{ int . }}        AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY in the Secret {{ $secret }}
{{- end }}{{ end }}
{{- if has "grafana" $installed }}{{ with $ports.grafana }}
  Grafana     http://localhost:{{ int . }}        admin, GRAFANA_ADMIN_PASSWORD in the Secret {{ $secret }}
{{- end }}{{ end }}
{{- if has "locust-master" $installed }}{{ with $ports.locust }}
  Locust      http://localhost:{{ int . }}
{{- end }}{{ end }}

Pods that wait for an image: ours are not in a registry. `make images` builds them; then they are there on Docker Desktop, and
elsewhere `kind load docker-image`, `k3d image import` or `minikube image load` takes them to the node.
{{- with include "flts.scalingNote" . }}

{{ . }}
{{- end }}
{{- if .Values.networkPolicies.enabled }}

Network policies let only those connect to a pod who need it, if the cluster enforces them. kind before 0.24, minikube without
--cni and Docker Desktop may not: then every pod of the cluster can reach Kafka and Postgres, and only keys and passwords guard
the rest.
{{- end }}
{{- if .Values.externalBackend.enabled }}

Outside of the cluster:
{{- range $key, $what := dict "kafka" "Kafka" "mlflow" "MLflow" "minio" "S3" "fastapi" "the gateway" }}
{{- with include "flts.outside" (dict "root" $ "key" $key) }}
  {{ $what }} at {{ . }}
{{- end }}
{{- end }}
A service that cannot use one of them ends within BACKEND_CHECK_SECONDS and is started again; `kubectl describe pod` shows
address and step that failed. Their keys come from `secrets`: random ones open nothing.
{{- end }}
{{- range $name := list "kafka" "minio" "mlflow" }}
{{- if not (or (has $name $installed) (include "flts.outside" (dict "root" $ "key" $name))) }}

{{ $name }} is switched off and externalBackend names none: services look for a Service {{ $name }} in this namespace that is
somebody else's.
{{- end }}
{{- end }}

`helm uninstall` leaves the Secret flts-secrets and these volume claims, so that an installation after it finds its champions:
{{- range $name := $installed }}
{{- $spec := index ($.Files.Get "config/workloads.yaml" | fromYaml) $name }}
{{- if and $spec.data (include "flts.chosen" (dict "root" $ "name" $name "spec" $spec) | fromYaml).persistence.enabled }}
  {{ $name }}-data
{{- end }}
{{- end }}
`kubectl --namespace {{ .Release.Namespace }} delete pvc,secret --selector app.kubernetes.io/instance={{ .Release.Name }}` removes them, and all data with them.
{{- end }}

{{- define "flts.currentJob" -}}
{{- $root := . -}}
{{- range $name, $spec := .Files.Get "config/job.yaml" | fromYaml -}}
{{- $of := dict "root" $root "name" $name "spec" $spec "job" true "restartPolicy" "OnFailure" -}}
{{- include "flts.jobName" (set $of "chosen" (include "flts.chosen" $of | fromYaml)) -}}
{{- end -}}
{{- end }}
