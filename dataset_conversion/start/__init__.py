"""What a folder of images and drawings is believed to hold, before its owner agrees."""
