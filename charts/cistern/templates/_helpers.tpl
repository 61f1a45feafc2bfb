{{/* Names and labels. */}}
{{- define "cistern.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "cistern.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "cistern.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "cistern.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects pods, and all that their templates have: nothing that changes with the chart's version, or each upgrade would restart every OSD. */}}
{{- define "cistern.selector" -}}
app.kubernetes.io/name: {{ include "cistern.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "cistern.labels" -}}
{{ include "cistern.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: cistern
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "cistern.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "cistern.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "cistern.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "cistern.secretName" -}}
{{- default (printf "%s-secret" (include "cistern.fullname" .)) .Values.secret.existingSecret -}}
{{- end -}}

{{/*
Where everybody finds the metadata controllers. One today; several will be listed here, one for each pod of the
StatefulSet. Names, not addresses: a pod that restarts has another one, and every connect asks anew.
*/}}
{{- define "cistern.mdcAddresses" -}}
{{- if .Values.mdc.addresses -}}
{{- join "," .Values.mdc.addresses -}}
{{- else -}}
{{- $full := include "cistern.fullname" . -}}
{{- printf "%s:%s-mdc-0.%s-mdc.%s.svc.%s:%d" .Values.network.transport $full $full .Release.Namespace .Values.clusterDomain (int .Values.ports.mdc) -}}
{{- end -}}
{{- end -}}

{{/*
What a service listens on, which is also what it tells the others: this pod's own address, or with network.cidr the
address that it has in the storage network. Argument: root, port (text).
*/}}
{{- define "cistern.listen" -}}
{{- $v6 := eq .root.Values.network.ipFamily "ipv6" -}}
{{- $ip := default "$(POD_IP)" .root.Values.network.cidr -}}
{{- printf "%s:%s:%s" .root.Values.network.transport (ternary (printf "[%s]" $ip) $ip $v6) .port -}}
{{- end -}}

{{/* Further options: a map as arguments. */}}
{{- define "cistern.options" -}}
{{- range $name, $value := . }}
- {{ printf "--%s=%v" $name $value | quote }}
{{- end -}}
{{- end -}}

{{/*
The pods' security. Nothing needs root but RDMA where the nodes' container runtime limits locked memory: registering
memory is then allowed by CAP_IPC_LOCK alone, which Kubernetes gives to the root user only.
*/}}
{{- define "cistern.needsRoot" -}}
{{- if and (eq .Values.network.transport "rdma") (not .Values.rdma.memlockUnlimited) }}true{{ end -}}
{{- end -}}

{{- define "cistern.podSecurity" -}}
{{- if include "cistern.needsRoot" . }}
runAsUser: 0
runAsNonRoot: false
{{- else }}
runAsUser: 10001
runAsNonRoot: true
{{- end }}
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "cistern.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  {{- if include "cistern.needsRoot" . }}
  add: [IPC_LOCK]
  {{- end }}
{{- end -}}

{{/* Resources of a component with what RDMA and huge pages add. Argument: root, resources. */}}
{{- define "cistern.resources" -}}
{{- $extra := dict -}}
{{- if eq .root.Values.network.transport "rdma" -}}
{{- if .root.Values.rdma.resource -}}
{{- $_ := set $extra .root.Values.rdma.resource (toString .root.Values.rdma.count) -}}
{{- end -}}
{{- end -}}
{{- if .root.Values.hugepages.enabled -}}
{{- $_ := set $extra (printf "hugepages-%s" .root.Values.hugepages.size) .root.Values.hugepages.amount -}}
{{- end -}}
{{- $limits := mergeOverwrite (deepCopy (default dict .resources.limits)) $extra -}}
{{- $requests := mergeOverwrite (deepCopy (default dict .resources.requests)) $extra -}}
requests:
  {{- toYaml $requests | nindent 2 }}
{{- if $limits }}
limits:
  {{- toYaml $limits | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The environment that the commands use. */}}
{{- define "cistern.env" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- if .Values.failureDomain.rackLabel }}
- name: RACK
  valueFrom:
    fieldRef:
      fieldPath: {{ printf "metadata.labels['%s']" .Values.failureDomain.rackLabel | quote }}
{{- end }}
- name: CISTERN_CONFIG
  value: /etc/cistern/client.conf
{{- end -}}

{{- define "cistern.mounts" -}}
- name: secret
  mountPath: /etc/cistern-secret
  readOnly: true
- name: client
  mountPath: /etc/cistern
  readOnly: true
- name: run
  mountPath: /run/cistern
{{- end -}}

{{- define "cistern.volumes" -}}
- name: secret
  secret:
    secretName: {{ include "cistern.secretName" . }}
    defaultMode: 0440
    items:
      - key: {{ .Values.secret.key }}
        path: secret
- name: client
  projected:
    defaultMode: 0444
    sources:
      - configMap:
          name: {{ include "cistern.fullname" . }}-client
      - configMap:
          name: {{ include "cistern.fullname" . }}-scripts
- name: run
  emptyDir:
    medium: Memory
    sizeLimit: 16Mi
{{- end -}}

{{/*
Probes. Ready: the service answers (its ready file, or /readyz). Alive: its loop still turns round, seen by an
authenticated message there and back (or /healthz). A service that is not ready yet is not killed: it waits for its
disk, its array or the metadata controller by itself, and says so in its log.
*/}}
{{- define "cistern.probes" -}}
{{- if .Values.metrics.enabled }}
readinessProbe:
  httpGet:
    path: /readyz
    port: metrics
  periodSeconds: 5
  timeoutSeconds: 3
livenessProbe:
  httpGet:
    path: /healthz
    port: metrics
  initialDelaySeconds: 10
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- else }}
readinessProbe:
  exec:
    command: [test, -e, /run/cistern/ready]
  periodSeconds: 5
  timeoutSeconds: 3
livenessProbe:
  exec:
    command: [sh, /etc/cistern/alive.sh, /run/cistern/ready]
  initialDelaySeconds: 10
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 6
{{- end }}
{{- end -}}

{{/* Arguments that all services have. Argument: root, metricsPort (text). */}}
{{- define "cistern.commonArgs" -}}
- --secret-file=/etc/cistern-secret/secret
- --ready-file=/run/cistern/ready
- --log-level={{ .root.Values.logLevel }}
{{- if .root.Values.metrics.enabled }}
- {{ printf "--metrics=%s:%s" (ternary "[$(POD_IP)]" "$(POD_IP)" (eq .root.Values.network.ipFamily "ipv6")) .metricsPort | quote }}
{{- end }}
{{- end -}}

{{/* Where pods may go. Argument: values of the component; set: what one of its sets says over them. */}}
{{- define "cistern.placement" -}}
{{- $set := default dict .set -}}
{{- with default .values.nodeSelector $set.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default .values.tolerations $set.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default .values.affinity $set.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "cistern.podCommon" -}}
serviceAccountName: {{ include "cistern.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- if .Values.network.hostNetwork }}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
{{- end }}
{{- end -}}

{{/*
All OSDs as one list: the chart's sets and listed devices. On the host's network each has ports of its own, so that a
node can have one pod of each; on the pods' network all have the same.
*/}}
{{- define "cistern.osdSets" -}}
{{- $out := list -}}
{{- $step := ternary 1 0 .Values.network.hostNetwork -}}
{{- range .Values.osd.sets -}}
{{- $n := mul $step (len $out) -}}
{{- $out = append $out (dict "name" .name "replicas" (int .replicas) "set" . "device" dict "port" (add $.Values.ports.osd $n) "metricsPort" (add $.Values.ports.metrics (mul $step 100) $n)) -}}
{{- end -}}
{{- range .Values.osd.devices -}}
{{- $n := mul $step (len $out) -}}
{{- $out = append $out (dict "name" .name "replicas" 1 "set" dict "device" . "port" (add $.Values.ports.osd $n) "metricsPort" (add $.Values.ports.metrics (mul $step 100) $n)) -}}
{{- end -}}
{{- toYaml $out -}}
{{- end -}}

{{/* The names of the modules that a pool's members stand for, separated by commas. Argument: root, pool. */}}
{{- define "cistern.poolModules" -}}
{{- $full := include "cistern.fullname" .root -}}
{{- $members := .pool.members -}}
{{- $all := not $members -}}
{{- $names := list -}}
{{- range include "cistern.osdSets" .root | fromYamlArray -}}
{{- if or $all (has .name $members) -}}
{{- $name := .name -}}
{{- range until (int .replicas) -}}
{{- $names = append $names (printf "%s-osd-%s-%d" $full $name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range .root.Values.san.agents -}}
{{- if or $all (has .name $members) -}}
{{- $agent := printf "%s-san-%s" $full .name -}}
{{- if eq (len .luns) 1 -}}
{{- $names = append $names $agent -}}
{{- else -}}
{{- range $i, $_ := .luns -}}
{{- $names = append $names (printf "%s-%d" $agent (add1 $i)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- join "," $names -}}
{{- end -}}
