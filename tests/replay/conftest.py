import torch

torch.set_num_threads(1)  # the model is small: more threads only wait for each other
