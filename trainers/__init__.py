"""nnU-Net trainer classes, one per file; `attenscribble trainers` prints this folder for nnUNet_extTrainer."""
