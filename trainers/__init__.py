"""nnU-Net trainer classes; `attenscribble trainers` prints this folder for nnUNet_extTrainer."""
