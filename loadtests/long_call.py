"""How well a long call is cut and labelled: `python -m loadtests.long_call --help`.

    python -m loadtests.long_call --seconds 3600 --audio /path/to/emodb --speakers 12 13 14 15 16

A call is put together of clips (`loadtests.calls`), encoded, read, cut and scored as the service does it. What is found
is compared with what was said where, and each label with that of the clip alone: at 8 kHz, as loud, through the same codec.
"""
