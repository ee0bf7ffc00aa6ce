"""What bench/run is made of.

- `install`: builds and installs everything that is measured.
- `servers`: starts the servers, each for one measurement, on free ports and in directories of their own.
- `load`: runs `whimbrel bench` against them.
- `parts`: what is measured, part by part; raw figures come out.
- `rows`: judges raw figures against the targets.
- `page`: the table as Markdown, and its way into the documents.
- `plot`: the picture, drawn from the JSON.
- `results`: where all that is kept.
"""
