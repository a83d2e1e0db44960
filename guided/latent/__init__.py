"""Diffusion in the latents of an autoencoder: the autoencoder, its files, how it is trained, batches of latents."""
