{{- define "whimbrel.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "whimbrel.release" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "whimbrel.selector" -}}
{{ include "whimbrel.release" . }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "whimbrel.labels" -}}
{{ include "whimbrel.selector" . }}
{{ include "whimbrel.chartLabels" . }}
{{- end -}}

{{- /* For pods that are not the operator's, lest a selector take them for it: (dict "root" . "component" "…"). */ -}}
{{- define "whimbrel.helperLabels" -}}
{{ include "whimbrel.release" .root }}
app.kubernetes.io/component: {{ .component }}
{{ include "whimbrel.chartLabels" .root }}
{{- end -}}

{{- define "whimbrel.chartLabels" -}}
app.kubernetes.io/part-of: whimbrel
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* Of what stands outside namespaces and belongs to this release alone. */ -}}
{{- define "whimbrel.clusterName" -}}
{{- printf "%s.%s" (include "whimbrel.fullname" .) .Release.Namespace -}}
{{- end -}}

{{- define "whimbrel.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "whimbrel.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* Of /metrics, /healthz and /readyz; `helm test` asks there, by PORT of operator/whimbrel_operator/settings.py. */ -}}
{{- define "whimbrel.port" -}}8080{{- end -}}

{{- define "whimbrel.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* What every pod of the chart has: the restricted pod security standard, and where it may run. */ -}}
{{- define "whimbrel.podSpec" -}}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "whimbrel.container" -}}
image: {{ include "whimbrel.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
terminationMessagePolicy: FallbackToLogsOnError
{{- end -}}

{{- /* The one container of a pod that asks something and ends: the same image, little of everything. */ -}}
{{- define "whimbrel.asker" -}}
{{ include "whimbrel.container" . }}
env:
- {name: WHIMBREL_SERVICE_ACCOUNT, value: /var/run/secrets/kubernetes.io/serviceaccount}
resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {memory: 256Mi}}
{{- end -}}

{{- /* How worker pods run, as operator/whimbrel_operator/specs/pods_form.py reads it. The kubelet would put the operator's
variables in for a `$(NAME)` that is meant for the worker's; `$$` it makes one again. */ -}}
{{- define "whimbrel.pods" -}}
{{- $pulls := list -}}
{{- range .Values.imagePullSecrets }}{{ $pulls = append $pulls .name }}{{ end -}}
{{- $told := dict "imagePullSecrets" $pulls "labels" .Values.workers.podLabels "annotations" .Values.workers.podAnnotations -}}
{{- mustToJson (merge $told (omit .Values.workers "podLabels" "podAnnotations")) | replace "$" "$$" -}}
{{- end -}}

{{- /* Egress of every pod: names, and the API server. */ -}}
{{- define "whimbrel.alwaysReached" -}}
{{- with .Values.networkPolicy -}}
- ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
  to: {{- toYaml .dns | nindent 2 }}
- ports:
  {{- range .apiServer.ports }}
  - {protocol: TCP, port: {{ int . }}}
  {{- end }}
  {{- with .apiServer.cidrs }}
  to:
  {{- range . }}
  - ipBlock: {cidr: {{ . | quote }}}
  {{- end }}
  {{- end }}
{{- end -}}
{{- end -}}
