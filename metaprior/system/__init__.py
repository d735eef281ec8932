"""What touches the machine: devices, signals, files, folders, programs, the terminal."""
