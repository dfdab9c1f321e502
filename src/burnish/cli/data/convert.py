"""`burnish data convert DATA... --out FILE`: any format that burnish reads, as messages."""

from __future__ import annotations

from burnish.cli.data.options import (
    AsJson,
    Format,
    LedgerPath,
    Out,
    Overwrite,
    Paths,
    Processes,
    Split,
    inputs_of,
    run,
    tell,
)
from burnish.cli.output import Output
from burnish.curation.flow import Job


def command(
    data: Paths,
    out: Out,
    format: Format = "auto",
    split: Split = "train",
    ledger: LedgerPath = None,
    processes: Processes = 1,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write rows as messages (plain text stays text), other columns along; the ledger says what could not be held."""
    from burnish.curation.convert import Conversion

    job = Job("convert", inputs_of(data, format, split), out, {}, ledger, overwrite, as_messages=True)
    parquet = out.suffix.lower() == ".parquet"
    tell(run(job, Conversion(parquet), processes=processes), Output(as_json=as_json))
