# A rank's GPU is number local rank of those that it sees, which Slurm says by CUDA_VISIBLE_DEVICES: all of the node's, one each, or none.
