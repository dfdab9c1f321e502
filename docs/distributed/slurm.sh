#!/bin/bash
# Two nodes of eight GPUs under SLURM: one torchrun a node, which starts a rank for each GPU.
#     sbatch docs/distributed/slurm.sh recipe.yaml data_parallel=hybrid
#SBATCH --job-name=burnish
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300        # five minutes before the end: a checkpoint is written, and the job can be resumed
#SBATCH --output=%x-%j.log
set -euo pipefail

read -r first < <(scontrol show hostnames "$SLURM_JOB_NODELIST")  # a pipe to `head` would end scontrol early, and the job
export OMP_NUM_THREADS=8

# Every node sees the recipe, the data, the model and output_dir at the same path (a shared file system).
# GNU env passes SLURM's node number on: srun expands nothing by itself.
srun bash -c 'exec torchrun \
    --nnodes="$SLURM_NNODES" --nproc-per-node=8 --node-rank="$SLURM_NODEID" \
    --rdzv-id="$SLURM_JOB_ID" --rdzv-backend=c10d --rdzv-endpoint="$0:29500" --max-restarts=3 \
    -m burnish train "$@"' "$first" "$@"
