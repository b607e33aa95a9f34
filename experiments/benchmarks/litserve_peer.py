"""The server of LitServe that experiments/benchmarks/serving.py measures: `python litserve_peer.py RUN ENGINE PORT`."""

import sys
from pathlib import Path

import litserve as ls
import numpy as np


class Api(ls.LitAPI):
    """Decodes, batches and answers; padded to powers of two, which are compiled before the first request."""

    def setup(self, device) -> None:
        from imgclf.serving.engines import open_engine

        self.engine = open_engine(Path(sys.argv[1]), sys.argv[2], 50_000_000)
        for power in range(5):
            self.engine.answers(self.engine.blank(2**power))

    def decode_request(self, request):
        return self.engine.view(request["image"].file.read())

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, views):
        padded = self.engine.blank(1 << (len(views) - 1).bit_length())
        padded[: len(views)] = views
        return self.engine.answers(padded).probabilities[: len(views)]

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        order = np.argsort(-output)[:5]
        return {"top": [{"class": self.engine.class_names[label], "probability": float(output[label])} for label in order]}


if __name__ == "__main__":
    server = ls.LitServer(Api(max_batch_size=16, batch_timeout=0.005), accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[3]), host="127.0.0.1", log_level="warning", generate_client_file=False, access_log=False)
