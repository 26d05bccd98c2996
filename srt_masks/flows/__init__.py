"""Who reads whom and who learns from whom, at what distance and by how many hops: counted densely, for one call.

    call -> row --count--> counts by (reader's group, read group, distance) --table--> rows of two small tables --say--> sentences -> report

measure    `flow`: the whole way          sizes      how many steps, if nobody says
counting   a row of the batch to counts   table      counts to rows of the report
distances  "1 to 16", "17 and more"       sentences  what the rows come to, in words
report     the report: text and JSON      ways       between two rows: the shortest path, and the shortest that a gradient takes back
"""
