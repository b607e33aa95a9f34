"""What a process that was killed has left in a download's folder is taken in before the next one begins."""

from pathlib import Path
from typing import Any

from imgclf import files
from imgclf.openimages import photo
from imgclf.openimages.jobs import DownloadOptions, Job, jobs_of
from imgclf.openimages.ledger import Ledger, open_journal
from imgclf.openimages.selection import Selection


def recover(folder: Path, options: DownloadOptions, selection: Selection, ledger: Ledger) -> None:
    """Gives unfinished files that are whole their record and name, and deletes the others.

    A photo without a record (a power failure took the journal's last lines) is judged as if it had just arrived; a record without its photo
    (somebody has deleted it) becomes one that is to be fetched again.
    """
    known: dict[str, dict[str, Any]] = {
        str(record["image_id"]): {str(name): value for name, value in record.items()}
        for record in ledger.records[ledger.records["file"] != ""].to_dict("records")
    }
    lost = {image_id: record for image_id, record in known.items() if not (folder / record["file"]).exists()}
    parts = {path.name.partition(".")[0]: path for path in folder.glob(str(files.part_of("photos/??/*.jpg")))}
    stray = {path.stem for path in folder.glob("photos/??/*.jpg")} - set(known)
    found = selection.images[selection.images["image_id"].isin(set(parts) | stray)]
    jobs = {job.image_id: job for job in jobs_of(found, options)}
    journal = open_journal(folder, "recovered")
    try:
        for image_id, part in parts.items():
            start, job = ledger.started.get(image_id), jobs.get(image_id)
            if image_id in lost and part.stat().st_size == lost[image_id]["bytes"]:  # killed between record and name
                _finish(part, folder / lost.pop(image_id)["file"])
            elif start and job and start["length"] == part.stat().st_size:
                photo.conclude(job, photo.judge(job, start, folder, options.fetch), folder, journal.append)
            else:
                part.unlink()
        for image_id in stray & set(jobs):
            job = jobs[image_id]
            _finish(folder / job.file(), files.part_of(folder / job.file()))
            start = ledger.started.get(image_id) or _unknown_start(job)
            photo.conclude(job, photo.judge(job, start, folder, options.fetch), folder, journal.append)
        for record in lost.values():
            journal.append({**record, "status": "transient", "detail": "the file is gone", "file": ""})
    finally:
        journal.close()


def _finish(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    files.finish(source, target)


def _unknown_start(job: Job) -> dict[str, Any]:
    """Returns the "started" entry of a photo of which the journal has lost it: from the first of its URLs."""
    source, url = job.urls[0] if job.urls else ("", "")
    return {"source": source, "url": url, "tries": 1, "http_status": 0, "final_url": url}
