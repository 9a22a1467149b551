"""What the method, the conversions and the evaluation share: files, images, sentences, figures."""
