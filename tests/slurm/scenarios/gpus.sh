# A rank's GPU is, of those that it sees, number local rank, counted round: whether Slurm shows it all of the node's or one alone.
# GPUs and NCCL are emulated; that Slurm hands out null devices in their place is enough for CUDA_VISIBLE_DEVICES.
export CUDPO_PLUGIN=${cudpo%/*}/tests/libcudpo_cuda_emulated.so CUDPO_NCCL=${cudpo%/*}/tests/libcudpo_nccl_emulated.so
export SIMT_DEVICES=2 CUDPO_GEMM=first
[ -e "$CUDPO_PLUGIN" ] && [ -e "$CUDPO_NCCL" ] || skip "no emulated GPUs in this build"

# device NAME RANK NUMBER COUNT VISIBLE: what the doctor said of a rank.
device() {
    grep -q "^CUDA_VISIBLE_DEVICES  *$5$" "$work/$1.$2" || fail "$1, rank $2: not CUDA_VISIBLE_DEVICES=$5"
    grep -q "^device of the rank  *GPU $3 of $4: local rank $2" "$work/$1.$2" || fail "$1, rank $2: not GPU $3 of $4"
}
# train NAME OPTION of sbatch and srun
train() {
    local name=$1
    shift
    timeout 60 sbatch --wait -J "$scenario" -o /dev/null -N 1 -n 2 "$@" --wrap \
        "srun -n 2 $* -o '$work/$name.%t' '$cudpo' doctor" || fail "the doctor's job"
    STEP="-n 2 $*" submit -N 1 -n 2 "$@" -- --output_dir "$work/$name" --per_device_train_batch_size 1 --max_steps 2 --device cuda
    ends COMPLETED
    expect Restarts 0
    said "gradients of 2 ranks are added up by nccl"
}
train all --gres=gpu:2
device all 0 0 2 0,1
device all 1 1 2 0,1
train one --gpus-per-task=1
device one 0 0 1 0
device one 1 0 1 1
cmp "$work/all/model.safetensors" "$work/one/model.safetensors" || fail "other weights"
