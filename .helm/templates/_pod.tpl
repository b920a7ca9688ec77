{{/* The pod of every workload, under the restricted Pod Security profile. */}}
{{- define "flts.pod" -}}
{{- $user := .spec.user | default 10001 | int -}}
metadata:
  labels:
    {{- include "flts.selector" . | nindent 4 }}
  {{- with include "flts.checksums" . | trim }}
  annotations:
    {{- . | nindent 4 }}
  {{- end }}
spec:
  # A Service called kafka would give its pods KAFKA_PORT=tcp://..., which the broker takes for a setting.
  enableServiceLinks: false
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: {{ .spec.graceSeconds | default 35 | int }}
  {{- if and .spec.yields .root.Values.priorityClass.enabled }}
  priorityClassName: {{ include "flts.priorityClass" . }}
  {{- end }}
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  {{- with .root.Values.images.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: {{ $user }}
    runAsGroup: {{ $user }}
    fsGroup: {{ $user }}
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  containers:
    - name: {{ .name }}
      image: {{ include "flts.image" . | quote }}
      imagePullPolicy: {{ .root.Values.images.pullPolicy }}
      {{- with .spec.command }}
      command: {{ toJson . }}
      {{- end }}
      {{- with .spec.args }}
      args: {{ toJson . }}
      {{- end }}
      # The last words of a container that ended, such as the backend that did not answer, stand in its pod's status.
      terminationMessagePolicy: FallbackToLogsOnError
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      {{- with include "flts.environment" . | trim }}
      env:
        {{- . | nindent 8 }}
      {{- end }}
      {{- with .spec.ports }}
      ports:
        {{- range $name, $port := . }}
        - {name: {{ $name }}, containerPort: {{ int $port }}}
        {{- end }}
      {{- end }}
      {{- with include "flts.probes" . | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with .spec.linger }}
      lifecycle:
        preStop:
          exec: {command: [sleep, {{ int . | quote }}]}
      {{- end }}
      resources:
        {{- toYaml .chosen.resources | nindent 8 }}
      {{- with include "flts.mounts" . | trim }}
      {{- . | nindent 6 }}
      {{- end }}
  {{- with include "flts.volumes" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "flts.probes" -}}
{{- $given := .spec.probes -}}
{{- if not (hasKey .spec "probes") }}{{ $given = dict "ready" (dict "path" "/readyz") "alive" (dict "path" "/healthz") }}{{ end -}}
{{- with $given.alive }}
# A machine on which all starts at once may take its time, and no more than five minutes.
startupProbe:
  {{- include "flts.asked" . | nindent 2 }}
  periodSeconds: 2
  timeoutSeconds: 10
  failureThreshold: 150
livenessProbe:
  {{- include "flts.asked" . | nindent 2 }}
  periodSeconds: 15
  timeoutSeconds: 10
  failureThreshold: 4
{{- end }}
{{- with $given.ready }}
readinessProbe:
  {{- include "flts.asked" . | nindent 2 }}
  periodSeconds: 5
  timeoutSeconds: 10
  failureThreshold: 2
{{- end }}
{{- end }}

{{- define "flts.asked" -}}
{{- if .path }}httpGet: {path: {{ .path }}, port: http}
{{- else if .tcp }}tcpSocket: {port: {{ .tcp }}}
{{- else }}exec:
  command: {{ toJson .exec }}
{{- end }}
{{- end }}

{{/* Folders to write in, data, and files of ours. */}}
{{- define "flts.mounts" -}}
{{- $folders := .spec.folders -}}
{{- if not (hasKey .spec "folders") }}{{ $folders = dict "/tmp" "64Mi" }}{{ end -}}
{{- if or $folders .spec.data .spec.files }}
volumeMounts:
  {{- range $path, $size := $folders }}
  - {name: {{ include "flts.volume" $path }}, mountPath: {{ $path }}}
  {{- end }}
  {{- with .spec.data }}
  - name: data
    mountPath: {{ . }}
    {{- with $.spec.dataFolder }}
    subPath: {{ . }}
    {{- end }}
  {{- end }}
  {{- range $name, $path := .spec.files }}
  - {name: {{ $name }}, mountPath: {{ $path }}, readOnly: true}
  {{- end }}
{{- end }}
{{- end }}

{{- define "flts.volumes" -}}
{{- $folders := .spec.folders -}}
{{- if not (hasKey .spec "folders") }}{{ $folders = dict "/tmp" "64Mi" }}{{ end -}}
{{- if or $folders .spec.data .spec.files }}
volumes:
  {{- range $path, $size := $folders }}
  - {name: {{ include "flts.volume" $path }}, emptyDir: {sizeLimit: {{ $size }}}}
  {{- end }}
  {{- if .spec.data }}
  {{- if .chosen.persistence.enabled }}
  - {name: data, persistentVolumeClaim: {claimName: {{ .name }}-data}}
  {{- else }}
  - {name: data, emptyDir: {sizeLimit: {{ .chosen.persistence.size }}}}
  {{- end }}
  {{- end }}
  {{- range $name, $path := .spec.files }}
  - {name: {{ $name }}, configMap: {name: {{ $name }}}}
  {{- end }}
{{- end }}
{{- end }}

{{- define "flts.volume" -}}
{{ trimPrefix "/" . | replace "/" "-" }}
{{- end }}

{{/* Pods do not see that a Secret or a ConfigMap has changed. Eight digits tell that it did, and prove no guess at it. */}}
{{- define "flts.checksums" -}}
{{- $names := include "flts.secretNames" . | fromYaml -}}
{{- if and $names (not .root.Values.secrets.existingSecret) (not .job) -}}
{{- $made := include "flts.secrets" .root | fromJson -}}
{{- $read := dict -}}
{{- range $name, $key := $names }}{{ $_ := set $read $key (index $made $key) }}{{ end }}
checksum/secrets: {{ toJson $read | sha256sum | trunc 8 | quote }}
{{- end }}
{{- if .spec.files -}}
{{- $read := dict -}}
{{- range $name, $path := .spec.files }}{{ $_ := set $read $name (include "flts.files" (dict "root" $.root "name" $name)) }}{{ end }}
checksum/files: {{ toJson $read | sha256sum | trunc 8 | quote }}
{{- end }}
{{- end }}
