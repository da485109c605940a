import { DataSourcePlugin } from '@grafana/data';
import { ConfigEditor } from './components/ConfigEditor';
import { QueryEditor } from './components/QueryEditor';
import { VariableEditor } from './components/VariableEditor';
import { KedgeDataSource } from './datasource';
import { KedgeOptions, KedgeQuery, KedgeSecrets } from './types';

export const plugin = new DataSourcePlugin<KedgeDataSource, KedgeQuery, KedgeOptions, KedgeSecrets>(KedgeDataSource)
  .setConfigEditor(ConfigEditor)
  .setQueryEditor(QueryEditor)
  .setVariableQueryEditor(VariableEditor);
