"""GPU kernels of the model, each with the plain operations that it stands for."""
