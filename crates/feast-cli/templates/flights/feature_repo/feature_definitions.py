"""Features that predict whether a flight leaves New York late, on real data of December 2013.

`event_timestamp` is always the moment from which a row may be used, never the moment it describes: weather at the end
of its hour, the outcome of a flight after it has landed. That is what keeps the future out of the training data.
"""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, Project, PushSource, ValueType
from feast.types import Float32, Int64, String

project = Project(name="__PROJECT__", description="Flights that left New York at the end of 2013")

origin = Entity(
    name="origin",
    join_keys=["origin"],
    value_type=ValueType.STRING,
    description="Airport of departure: EWR, JFK or LGA",
)
carrier = Entity(
    name="carrier", join_keys=["carrier"], value_type=ValueType.STRING, description="Airline, two-character IATA code"
)

weather_file = FileSource(
    name="weather_file",
    path="data/weather.parquet",
    timestamp_field="event_timestamp",
    description="Hourly weather at the three origins",
)
weather_observations = PushSource(
    name="weather_observations",
    batch_source=weather_file,
    description="Fresh observations, pushed as soon as a station reports them",
)
carrier_file = FileSource(
    name="carrier_file",
    path="data/carrier_delays.parquet",
    timestamp_field="event_timestamp",
    description="Flights of the last seven days per carrier, once an hour",
)

origin_weather = FeatureView(
    name="origin_weather",
    entities=[origin],
    ttl=timedelta(hours=6),
    schema=[
        Field(name="origin", dtype=String),
        Field(name="temp", dtype=Float32, description="Temperature, degrees Fahrenheit"),
        Field(name="wind_speed", dtype=Float32, description="Wind speed, miles per hour"),
        Field(name="wind_gust", dtype=Float32, description="Wind gust, miles per hour; null without gusts"),
        Field(name="precip", dtype=Float32, description="Precipitation, inches"),
        Field(name="visib", dtype=Float32, description="Visibility, miles"),
    ],
    source=weather_observations,
    online=True,
    tags={"team": "weather"},
)
carrier_delays = FeatureView(
    name="carrier_delays",
    entities=[carrier],
    ttl=timedelta(days=7),
    schema=[
        Field(name="carrier", dtype=String),
        Field(name="carrier_flights_7d", dtype=Int64, description="Completed flights in the last seven days"),
        Field(name="carrier_mean_dep_delay_7d", dtype=Float32, description="Their mean departure delay, minutes"),
        Field(name="carrier_late_share_7d", dtype=Float32, description="Share that left 15 minutes late or more"),
    ],
    source=carrier_file,
    online=True,
    tags={"team": "delays"},
)

departure_delay_v1 = FeatureService(
    name="departure_delay_v1",
    features=[origin_weather, carrier_delays],
    description="What the departure delay model reads, in training and in production",
)
