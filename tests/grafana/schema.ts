// Grafana's schema of a dashboard with the kinds of panels that ours has. The dashboard's JSON is appended as the value of a
// constant, so that the compiler reports every field that Grafana doesn't know, and every value that it doesn't take.

import type * as common from "@grafana/grafana-foundation-sdk/common";
import type * as grafana from "@grafana/grafana-foundation-sdk/dashboard";
import type * as prometheus from "@grafana/grafana-foundation-sdk/prometheus";
import type * as stat from "@grafana/grafana-foundation-sdk/stat";
import type * as statetimeline from "@grafana/grafana-foundation-sdk/statetimeline";
import type * as table from "@grafana/grafana-foundation-sdk/table";
import type * as timeseries from "@grafana/grafana-foundation-sdk/timeseries";

// A type as JSON has it: enumerations as their values, nothing that can be called.
type Json<T> = 0 extends 1 & T
  ? any
  : T extends string
    ? `${T}`
    : T extends number | boolean | null | undefined
      ? T
      : T extends readonly (infer Item)[]
        ? Json<Item>[]
        : { [Key in keyof T as T[Key] extends (...given: any[]) => any ? never : Key]: Json<T[Key]> };

type PanelOf<Type extends string, Options, Custom> = Omit<Json<grafana.Panel>, "type" | "title" | "description" | "gridPos" | "targets" | "options" | "fieldConfig"> & {
  id: number;
  type: Type;
  title: string;
  description: string;
  gridPos: Json<grafana.GridPos>;
  targets: Json<prometheus.Dataquery>[];
  // Grafana fills in what is left out.
  options: Partial<Json<Options>>;
  fieldConfig: Omit<Json<grafana.FieldConfigSource>, "defaults"> & {
    defaults: Omit<Json<grafana.FieldConfig>, "custom"> & { custom?: Partial<Json<Custom>> };
  };
};

type OurPanel =
  | Json<grafana.RowPanel>
  | PanelOf<"timeseries", timeseries.Options, common.GraphFieldConfig>
  | PanelOf<"stat", stat.Options, never>
  | PanelOf<"state-timeline", statetimeline.Options, statetimeline.FieldConfig>
  | PanelOf<"table", table.Options, common.TableFieldOptions>;

type OurDashboard = Omit<Json<grafana.Dashboard>, "panels"> & { panels: OurPanel[] };

