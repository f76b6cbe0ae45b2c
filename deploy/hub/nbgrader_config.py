# Untested here (no container engine). On the hub, assignments travel by ngshare: nbgrader's own exchange is a folder
# that all must share, and containers have none.
from ngshare_exchange import configureExchange

c = get_config()
configureExchange(c, "http://hub:10101/services/ngshare")
c.CourseDirectory.course_id = "*"  # an instructor names one, in the course's own nbgrader_config.py
