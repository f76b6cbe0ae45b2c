# Untested here (no container engine). A hub in one container, each person in another, the exchange beside the hub.
import os

c = get_config()

c.JupyterHub.hub_ip = "0.0.0.0"  # noqa: S104  (the network is compose's own)
c.JupyterHub.hub_connect_ip = "hub"
c.JupyterHub.db_url = "sqlite:////srv/state/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "/srv/state/cookie_secret"  # noqa: S105
c.JupyterHub.authenticator_class = "native"
c.Authenticator.admin_users = {os.environ["FTMATH_ADMIN"]}
c.Authenticator.allow_all = True  # everybody whom the admin has let in at /hub/authorize

c.JupyterHub.spawner_class = "docker"
c.DockerSpawner.image = "fine-tuning-math-lab"
c.DockerSpawner.network_name = os.environ["FTMATH_NETWORK"]
c.DockerSpawner.remove = True
c.DockerSpawner.mem_limit = "2G"
c.DockerSpawner.cpu_limit = 2
# A volume is filled from the image when it's first mounted: everybody starts with a copy of the course.
c.DockerSpawner.volumes = {"ftmath-{username}": "/home/learner"}
c.Spawner.default_url = "/lab/tree/course/index.ipynb"

c.JupyterHub.services = [
    {
        "name": "ngshare",
        "url": "http://hub:10101",
        "command": ["python3", "-m", "ngshare", "--admins", os.environ["FTMATH_ADMIN"],
                    "--database", "sqlite:////srv/state/ngshare.db", "--storage", "/srv/state/ngshare"],
        "oauth_no_confirm": True,
    }
]  # fmt: skip
EXCHANGE = "access:services!service=ngshare"
c.JupyterHub.load_roles = [
    {"name": "user", "scopes": ["self", EXCHANGE]},
    {"name": "server", "scopes": ["users:activity!user", "access:servers!server", EXCHANGE]},
]
