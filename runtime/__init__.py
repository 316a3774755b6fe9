"""What any run needs: config, run folder, checkpoints, tracking, devices. It knows no video."""
