"""What a bundle says of itself to machines: RO-Crate (https://w3id.org/ro/crate/1.1), and Croissant for its images."""

import json
import mimetypes
from collections.abc import Mapping
from typing import Any

import pandas as pd

from imgclf.errors import missing_extra
from imgclf.publishing import examples
from imgclf.publishing.manifest import File

ROCRATE = "ro-crate-metadata.json"
CROISSANT = "data/croissant.json"


def check(*, croissant: bool) -> None:
    """Raises a UserError where a package for the metadata is not installed."""
    try:
        import rocrate  # noqa: F401
    except ImportError:
        raise missing_extra("A bundle's RO-Crate metadata", "rocrate", "publish") from None
    if croissant:
        try:
            import mlcroissant  # noqa: F401
        except ImportError:
            raise missing_extra("Croissant metadata", "mlcroissant", "croissant") from None


def rocrate_json(about: Mapping[str, Any], results: Mapping[str, Any], files: list[File], date: str, table: pd.DataFrame) -> bytes:
    """Describes the bundle as an RO-Crate.

    Args:
      about: the manifest's.
      results: the run's results.json.
      files: of the bundle.
      date: when the run was finished, ISO 8601.
      table: of the images, for their licences.
    """
    from rocrate.model.contextentity import ContextEntity
    from rocrate.model.file import File as CrateFile
    from rocrate.rocrate import ROCrate

    crate = ROCrate()
    crate.name = f"{about['name']}: an image classifier of {len(results['class_names'])} classes"
    crate.description = (
        f"Model, data, code and environment of the imgclf run {about['name']}: top-1 {results['top1']:.4f} on {results['n']} "
        f"{results['split']} images, 95 % interval {results['top1_ci95'][0]:.4f} to {results['top1_ci95'][1]:.4f}."
    )
    crate.datePublished = date
    if "licence_url" in table:
        for url in sorted({str(url) for url in table["licence_url"]} - {""}):
            crate.root_dataset.append_to("license", crate.add(ContextEntity(crate, url, {"@type": "CreativeWork"})))
    software = {"@type": "SoftwareApplication", "name": "imgclf", "softwareVersion": about["source"]["imgclf"]}
    action = {
        "@type": "CreateAction",
        "name": "training and evaluation",
        "endTime": date,
        "instrument": crate.add(ContextEntity(crate, "#imgclf", software)),
        "result": [],
    }
    made = crate.add(ContextEntity(crate, "#run", {key: value for key, value in action.items() if key != "result"}))
    for file in files:
        if file.path.startswith(examples.FILES):  # as many as there are images: data/examples.csv lists them
            continue
        kind = mimetypes.guess_type(file.path)[0] or "application/octet-stream"
        entity = CrateFile(
            crate, dest_path=file.path, properties={"contentSize": str(file.bytes), "sha256": file.sha256, "encodingFormat": kind}
        )
        crate.add(entity)
        if file.path.startswith(("run/", "weights/")):
            made.append_to("result", entity)
    return (json.dumps(crate.metadata.generate(), indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def croissant_json(about: Mapping[str, Any], table: File, date: str) -> bytes:
    """Describes data/examples.csv as a Croissant data set: a record per image with its class, split and SHA-256."""
    import mlcroissant as mlc

    source = mlc.FileObject(
        id="examples.csv", name="examples.csv", content_url="examples.csv", encoding_formats=["text/csv"], sha256=table.sha256
    )
    fields = [
        mlc.Field(
            id=f"images/{name}",
            name=name,
            data_types=[mlc.DataType.TEXT],
            source=mlc.Source(file_object="examples.csv", extract=mlc.Extract(column=name)),
        )
        for name in ("id", "class_name", "split", "sha256")
    ]
    data = mlc.Metadata(
        name=f"{about['name']} images",
        description=f"The images of the imgclf run {about['name']}, with their classes and splits.",
        date_published=date,
        version="1.0.0",
        distribution=[source],
        record_sets=[mlc.RecordSet(id="images", name="images", fields=fields)],
    )
    return (json.dumps(data.to_json(), indent=1, default=str, ensure_ascii=False) + "\n").encode()
