"""What is known of the downloads, after crashes."""

import pandas as pd

from imgclf.openimages import ledger, photo
from imgclf.openimages.jobs import Job

ID = "001464cfae2a30b8"


def test_the_ledger_outlives_torn_lines(tmp_path):
    journal = ledger.open_journal(tmp_path, "0")
    entry = photo._record(Job(ID, "train", ()), "mirror", "http://h/1", "ok", 1, bytes=5)
    journal.append(entry)
    journal.append({**entry, "url": "http://h/2", "status": "dead"})
    journal.close()
    with (tmp_path / "downloads-0.journal").open("ab") as file:
        file.write(b'{"image_id": "0123')
    journal = ledger.open_journal(tmp_path, "0")
    journal.append({**entry, "url": "http://h/1", "status": "transient"})
    journal.close()
    known = ledger.Ledger(tmp_path)
    assert dict(zip(known.records["url"], known.records["status"], strict=True)) == {"http://h/1": "transient", "http://h/2": "dead"}
    copy = (tmp_path / "downloads-0.journal").read_bytes()
    known.compact()
    (tmp_path / "downloads-0.journal").write_bytes(copy)  # killed before the journal was deleted: merging again changes nothing
    pd.testing.assert_frame_equal(ledger.Ledger(tmp_path).records, known.records)
