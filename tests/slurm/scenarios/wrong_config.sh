# A configuration that makes no sense ends with 78, and is not queued again, whatever was asked for.
submit -- --beta=-1
ends FAILED
expect ExitCode 78:0
expect Restarts 0
said beta
[ ! -e "$work/out/model.safetensors" ] || fail "a model was written"
