"""`holdfast prove`: the storm and the faults at each disk call, on a user's own machine, disk and file system.

`ground.py` asks whether the file system can keep what the promises stand on; `trial.py` runs the rest and makes one
verdict of each promise.
"""
