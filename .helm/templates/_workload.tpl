{{/* A workload: a Deployment or a StatefulSet, its Services and its volume claim. */}}
{{- define "flts.workload" -}}
{{- $kind := .spec.kind | default "Deployment" -}}
{{- $scaled := and .chosen.autoscaling (.chosen.autoscaling | default dict).enabled -}}
apiVersion: apps/v1
kind: {{ $kind }}
metadata:
  name: {{ .name }}
  labels:
    {{- include "flts.labels" . | nindent 4 }}
spec:
  {{- if not $scaled }}
  # Not `default`, which takes 0 for nothing.
  {{- $key := .spec.replicas | default "replicas" }}
  replicas: {{ if hasKey .chosen $key }}{{ index .chosen $key | int }}{{ else }}1{{ end }}
  {{- end }}
  {{- if eq $kind "StatefulSet" }}
  serviceName: {{ .name }}
  {{- else }}
  revisionHistoryLimit: 3
  strategy:
    type: RollingUpdate
    {{- if .spec.yields }}
    # None of two, and some of many: on a full node a rollout that may take none away would never begin.
    rollingUpdate: {maxSurge: 1, maxUnavailable: 25%}
    {{- else if .spec.surge }}
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
    {{- else }}
    rollingUpdate: {maxSurge: 0, maxUnavailable: 1}
    {{- end }}
  {{- end }}
  selector:
    matchLabels:
      {{- include "flts.selector" . | nindent 6 }}
  template:
    {{- include "flts.pod" . | nindent 4 }}
{{- if .spec.ports }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}
  labels:
    {{- include "flts.labels" . | nindent 4 }}
spec:
  {{- include "flts.reach" . | trim | nindent 2 }}
  selector:
    {{- include "flts.selector" . | nindent 4 }}
{{- end }}
{{- if and .spec.metrics .spec.nodePorts }}
---
# One address a replica, for Prometheus: behind the other Service it would meet one of them each time.
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}-replicas
  labels:
    {{- include "flts.labels" . | nindent 4 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  ports:
    - {name: http, port: {{ int .spec.ports.http }}, targetPort: http}
  selector:
    {{- include "flts.selector" . | nindent 4 }}
{{- end }}
{{- if .spec.yields }}
---
# Whoever empties a node, or needs its room, takes one replica at a time.
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  labels:
    {{- include "flts.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      {{- include "flts.selector" . | nindent 6 }}
{{- if .root.Values.priorityClass.enabled }}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata:
  name: {{ include "flts.priorityClass" . }}
  labels:
    {{- include "flts.labels" . | nindent 4 }}
value: -1
preemptionPolicy: Never
description: Replicas that there are many of; a pod that is alone takes the place of one of them on a full node.
{{- end }}
{{- end }}
{{- if and .spec.data .chosen.persistence.enabled }}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ .name }}-data
  labels:
    {{- include "flts.labels" . | nindent 4 }}
  annotations:
    # `helm uninstall` names it and leaves it; an installation after that finds its data.
    helm.sh/resource-policy: keep
spec:
  accessModes: [ReadWriteOnce]
  resources:
    requests: {storage: {{ .chosen.persistence.size }}}
{{- end }}
{{- end }}

{{/* How others reach it: people by a port of the node, the cluster by name, and where only Prometheus asks, each replica. */}}
{{- define "flts.reach" -}}
{{- $ports := list -}}
{{- $type := "ClusterIP" -}}
{{- range $name, $port := .spec.ports -}}
{{- $one := dict "name" $name "port" (int $port) "targetPort" $name -}}
{{- with index ($.spec.nodePorts | default dict) $name -}}
{{- with index $.root.Values.nodePorts . }}{{ $_ := set $one "nodePort" (int .) }}{{ $type = "NodePort" }}{{ end -}}
{{- end -}}
{{- $ports = append $ports $one -}}
{{- end -}}
{{- if and .spec.metrics (not .spec.nodePorts) }}
clusterIP: None
publishNotReadyAddresses: true
{{- else }}
type: {{ $type }}
{{- end }}
ports:
  {{- toYaml $ports | nindent 2 }}
{{- end }}
