from ftgrade.nbgrader_step import configure

configure(get_config())
