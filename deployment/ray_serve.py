"""The server on a Ray cluster, with as many replicas as the load needs.

    pip install "imgclf[serve]" "ray[serve]"
    serve run deployment.ray_serve:app models=runs/photos,old=runs/photos-1 replicas=4 cpus=2 token=SECRET

Every node must see the models at the same paths. A replica takes requests when its models are warm. `gpus=1` gives each replica a GPU.
"""

from fastapi import FastAPI
from ray import serve
from ray.serve import Application


def app(args: dict[str, str]) -> Application:
    """The application, for `serve run` or a Serve config file; see above for the arguments."""
    sources = args["models"].split(",")
    token, engine = args.get("token", ""), args.get("engine", "auto")

    def build() -> FastAPI:
        from imgclf.serving import server
        from imgclf.serving.app import AppOptions

        made = server.build(sources, AppOptions(token=token), engine=engine)
        for served in made.state.handlers.models.values():
            served.warm()
        return made

    replica = serve.deployment(serve.ingress(build)(), name="imgclf")
    resources = {"num_cpus": float(args.get("cpus", 1)), "num_gpus": float(args.get("gpus", 0))}
    options = {"num_replicas": int(args.get("replicas", 1)), "max_ongoing_requests": 64, "ray_actor_options": resources}
    return replica.options(**options).bind()
