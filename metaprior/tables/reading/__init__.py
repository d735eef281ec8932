"""From the bytes of a file, or a frame of another library, to columns as they stand there."""
