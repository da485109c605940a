import { DataSourceJsonData } from '@grafana/data';
import { DataQuery } from '@grafana/schema';

/** What a panel, an alert rule or an annotation asks: Kedge's own request. */
export interface KedgeQuery extends DataQuery {
  kind?: string;
  namespace?: string;
  view?: string;
  model?: string;
  version?: string;
  columns?: string[];
  segment?: Record<string, string>;
  detector?: string;
  group_by?: string[];
  filter?: Record<string, string>;
  step?: string;
  limit?: number;
  max_points?: number;
  /** What one kind alone reads, e.g. {"labels": true} of rows; set as JSON. */
  params?: Record<string, unknown>;
  /** Which values of a series to show, e.g. mean and p95; none means all. */
  values?: string[];
  /** "numeric": a table as one number for each combination of its texts, for alert rules. */
  format?: 'numeric';
  /** What the dashboard's filters say; the backend applies them. */
  adhoc?: Array<{ key: string; operator: string; value: string; values?: string[] }>;
  /** Show the request as JSON instead of the builder. */
  code?: boolean;
  /** Several subjects, from a variable: the backend asks about each. */
  models?: string[];
  views?: string[];
}

/** One row of the table of question kinds; the backend holds the table. */
export interface Kind {
  name: string;
  title: string;
  help: string;
  group: string;
  subject: 'none' | 'view' | 'model' | 'either' | 'optional';
  reads: string[] | null;
  frame: string;
  panel?: string;
}

/** The members of a request beside its subject; all but the last two can be set in the builder. */
export const MEMBERS = ['version', 'columns', 'segment', 'detector', 'group_by', 'filter', 'step', 'limit', 'values', 'max_points', 'params'] as const;

export interface KedgeOptions extends DataSourceJsonData {
  namespace?: string;
  timeoutSeconds?: number;
  traceUrl?: string;
  maxRows?: number;
}

export interface KedgeSecrets {
  apiKey?: string;
}

/** A model or view of the catalogue. */
export interface Subject {
  subject: 'view' | 'model';
  name: string;
  description?: string;
}

/** The questions that monitors ask of every column. */
export const DETECTORS = ['ks', 'chi2', 'psi', 'mean_slowly', 'unseen', 'missing_rate', 'missing_slowly', 'constraint', 'volume', 'freshness', 'cadence'];

/** What a new panel asks: something that every installation can draw. */
export const DEFAULT_QUERY: Partial<KedgeQuery> = { kind: 'throughput' };

/** The JSON columns of Kedge's own frames, as the catalogue resource sends them. */
export interface WireFrame {
  name: string;
  columns: Array<{ name: string; values: unknown[] }>;
}

export interface VariableQuery {
  refId: string;
  list: 'models' | 'views' | 'columns' | 'versions' | 'segments' | 'detectors' | 'namespaces';
  model?: string;
  view?: string;
}
