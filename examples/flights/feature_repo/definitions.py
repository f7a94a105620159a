"""Features that predict whether a flight leaves New York late.

Every source is a Parquet file that `prepare.py` writes. `event_timestamp` is always the moment from which a row
may be used, never the moment it describes; README.md says why that matters.
"""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, Project, PushSource, ValueType
from feast.types import Float32, Int64, String

OWNER = "delays@flights.example"

project = Project(
    name="flights",
    description="Delays of all flights that left New York (EWR, JFK, LGA) in 2013",
    owner=OWNER,
)

# Entities -----------------------------------------------------------------------------------------------------------

origin = Entity(
    name="origin",
    join_keys=["origin"],
    value_type=ValueType.STRING,
    description="Airport of departure, IATA code",
    tags={"domain": "airport"},
    owner=OWNER,
)
destination = Entity(
    name="destination",
    join_keys=["dest"],
    value_type=ValueType.STRING,
    description="Airport of arrival, IATA code",
    tags={"domain": "airport"},
    owner=OWNER,
)
carrier = Entity(
    name="carrier",
    join_keys=["carrier"],
    value_type=ValueType.STRING,
    description="Operating airline, two-character IATA code",
    tags={"domain": "airline"},
    owner=OWNER,
)

# Sources ------------------------------------------------------------------------------------------------------------

weather_file = FileSource(
    name="weather_file",
    path="data/weather.parquet",
    timestamp_field="event_timestamp",
    description="Hourly weather at the three origins; usable from the end of the hour",
    owner=OWNER,
)
weather_observations = PushSource(
    name="weather_observations",
    batch_source=weather_file,
    description="Fresh observations, pushed as soon as a station reports them",
    owner=OWNER,
)
departures_file = FileSource(
    name="departures_file",
    path="data/origin_departures.parquet",
    timestamp_field="event_timestamp",
    description="Departures of the last three hours per origin; one row per minute with a departure",
    owner=OWNER,
)
carrier_file = FileSource(
    name="carrier_file",
    path="data/carrier_delays.parquet",
    timestamp_field="event_timestamp",
    description="Completed flights of the last seven days per carrier; one row per minute with a new outcome",
    owner=OWNER,
)
route_file = FileSource(
    name="route_file",
    path="data/route_delays.parquet",
    timestamp_field="event_timestamp",
    description="Last fifty completed flights per route; one row per minute with a new outcome",
    owner=OWNER,
)

# Feature views ------------------------------------------------------------------------------------------------------

origin_weather = FeatureView(
    name="origin_weather",
    entities=[origin],
    ttl=timedelta(hours=6),
    schema=[
        Field(name="origin", dtype=String),
        Field(name="temp", dtype=Float32, description="Temperature, degrees Fahrenheit"),
        Field(name="dewp", dtype=Float32, description="Dew point, degrees Fahrenheit"),
        Field(name="humid", dtype=Float32, description="Relative humidity, percent"),
        Field(name="wind_dir", dtype=Float32, description="Wind direction, degrees"),
        Field(name="wind_speed", dtype=Float32, description="Wind speed, miles per hour"),
        Field(name="wind_gust", dtype=Float32, description="Wind gust, miles per hour; null without gusts"),
        Field(name="precip", dtype=Float32, description="Precipitation, inches"),
        Field(name="pressure", dtype=Float32, description="Sea level pressure, millibars"),
        Field(name="visib", dtype=Float32, description="Visibility, miles"),
    ],
    source=weather_observations,
    online=True,
    description="Weather at the origin",
    tags={"team": "weather", "cadence": "hourly"},
    owner=OWNER,
)
origin_departures = FeatureView(
    name="origin_departures",
    entities=[origin],
    ttl=timedelta(hours=12),
    schema=[
        Field(name="origin", dtype=String),
        Field(name="origin_departures_3h", dtype=Int64, description="Flights that left in the last three hours"),
        Field(name="origin_mean_dep_delay_3h", dtype=Float32, description="Their mean departure delay, minutes"),
        Field(name="origin_late_share_3h", dtype=Float32, description="Share that left 15 minutes late or more"),
    ],
    source=departures_file,
    online=True,
    description="How punctually flights are leaving the origin right now",
    tags={"team": "delays", "window": "3h"},
    owner=OWNER,
)
carrier_delays = FeatureView(
    name="carrier_delays",
    entities=[carrier],
    ttl=timedelta(days=7),
    schema=[
        Field(name="carrier", dtype=String),
        Field(name="carrier_flights_7d", dtype=Int64, description="Completed flights in the last seven days"),
        Field(name="carrier_mean_dep_delay_7d", dtype=Float32, description="Their mean departure delay, minutes"),
        Field(name="carrier_mean_arr_delay_7d", dtype=Float32, description="Their mean arrival delay, minutes"),
        Field(name="carrier_late_share_7d", dtype=Float32, description="Share that left 15 minutes late or more"),
    ],
    source=carrier_file,
    online=True,
    description="Recent punctuality of a carrier",
    tags={"team": "delays", "window": "7d"},
    owner=OWNER,
)
route_delays = FeatureView(
    name="route_delays",
    entities=[origin, destination],  # a composite key: one row per pair of airports
    ttl=timedelta(days=30),
    schema=[
        Field(name="origin", dtype=String),
        Field(name="dest", dtype=String),
        Field(name="route_flights_50", dtype=Int64, description="Completed flights behind the figures, at most fifty"),
        Field(name="route_mean_dep_delay_50", dtype=Float32, description="Their mean departure delay, minutes"),
        Field(name="route_mean_arr_delay_50", dtype=Float32, description="Their mean arrival delay, minutes"),
        Field(name="route_late_share_50", dtype=Float32, description="Share that left 15 minutes late or more"),
    ],
    source=route_file,
    online=True,
    description="Recent punctuality of a route, over all carriers",
    tags={"team": "delays", "window": "50 flights"},
    owner=OWNER,
)

# Feature service ----------------------------------------------------------------------------------------------------

departure_delay_v1 = FeatureService(
    name="departure_delay_v1",
    features=[origin_weather, origin_departures, carrier_delays, route_delays],
    description="What the departure delay model reads, in training and in production",
    tags={"model": "departure_delay", "stage": "demo"},
    owner=OWNER,
)
