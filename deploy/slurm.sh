#!/usr/bin/env bash
# UNTESTED. Grade a course on the nodes of a SLURM job:  COURSE=/path/of/the/course sbatch deploy/slurm.sh
# The first node runs the scheduler and the master, every node runs a worker for each of its cores.
#SBATCH --job-name=ftgrade
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --mem-per-cpu=1G
#SBATCH --time=02:00:00
set -euo pipefail

here=${SLURM_SUBMIT_DIR:?submit it with sbatch, in the checkout}
course=${COURSE:?name the folder of the course: COURSE=… sbatch deploy/slurm.sh}
export PATH="$here/.venv/bin:$PATH" OMP_NUM_THREADS=1
# A submission that has ended three workers, and three more while it was alone, is set aside.
export DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=2

address="tcp://$(hostname):8786"
dask scheduler --port 8786 &
scheduler=$!
srun --kill-on-bad-exit=0 dask worker "$address" --nworkers "$SLURM_CPUS_PER_TASK" --nthreads 1 \
  --no-dashboard --local-directory "${TMPDIR:-/tmp}" &
workers=$!
trap 'kill "$workers" "$scheduler" 2>/dev/null || true' EXIT

ftgrade grade --course "$course" --scheduler "$address" || [ $? -eq 1 ] # 1: all is graded, some need a person
