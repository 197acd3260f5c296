#!/bin/sh
exec /opt/java/bin/java -Xmx128m -XX:TieredStopAtLevel=1 -Dlog4j2.level=WARN \
  -cp '/opt/kafka/libs/*' org.apache.kafka.tools.TopicCommand "$@"
