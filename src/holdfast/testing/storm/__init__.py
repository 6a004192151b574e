"""A storm on the real thing: real processes on one state directory, killed, stopped and continued at random, while
outsiders edit transcripts; then every promise is checked on what the clients saw and on what is on disk.

    python -m holdfast.testing.storm --seconds 60 --state FOLDER      # one JSON object; exit code 1 if a promise broke

`weather.py` conducts (read `Storm.run` first), `victims.py` is what runs in the processes, `outsider.py` what other
programs do to a transcript, `notes.py` what clients write down as they go, `judge.py` what is checked afterwards.
"""
